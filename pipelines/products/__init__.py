"""Fields -> files that people and programs open: COG, STAC, pictures, the report and the summary."""
