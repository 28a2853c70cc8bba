"""De-identification of medical images on the way in: headers, pixels, names of files, headers of NIfTI and video files.

A data set is built anew from what is known to be safe; nothing is passed on because no rule names it.
See docs/design/015-privacy.md.
"""
