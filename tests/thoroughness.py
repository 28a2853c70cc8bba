"""How much is tested: CI leaves out what repeats a promise at more points, and the longest whole runs.

`make test-all` runs everything. Marked `exhaustive`: repetitions. Listed here: tests that guard a promise of their own and take
too long on two cores whose memory others keep busy (docs/design/043); whoever makes one shorter takes it off the list.
"""

import os

EVERYTHING = os.environ.get("DRIFTLINE_TESTS") == "all"  # as `make test-all` asks

LONG = {
    "faults/test_cli_killed.py": ["test_a_run_killed_at_chosen_writes_gives_the_same_bytes"],
    "faults/test_cube_damage.py": ["test_forty_of_forty_flipped_bits_are_seen"],
    "faults/test_cube_kill.py": ["test_after_a_kill_of_gc_at_a_write_the_cube_is_whole"],
    "flows/test_change.py": ["test_a_run_finds_the_squares_and_a_second_one_does_nothing"],
    "flows/test_classify.py": ["test_the_label_of_every_step_is_learnt_from_spans_and_published_as_spans"],
    "flows/test_covariates.py": ["test_with_what_drives_a_series_the_error_falls_to_the_noise"],
    "flows/test_monitor.py": ["test_the_evaluation_is_done_once_and_the_report_shows_it"],
    "flows/test_segment.py": ["test_polygons_and_rasters_teach_networks_over_space[labels0]"],
    "flows/test_segment_volumes.py": ["test_a_curve_tells_the_tissue_of_every_voxel_and_the_products_lie_where_the_series_lies"],
    "flows/test_server.py": ["test_deployments_run_with_complete_history"],
    "flows/test_verify.py": ["test_a_combination_is_published_archived_and_gives_way_to_its_baseline"],
    "golden/test_golden.py": ["test_a_reduced_run_computes_the_golden_values[monitor]"],
    "hostile/test_hostile.py": ["test_files_that_really_end_their_decoder_cost_themselves_only"],
    "properties/test_cube_order.py": ["test_any_order_and_any_batches_give_the_same_cube"],
    "unit/cube/test_housekeeping.py": ["test_in_a_bucket_an_ingest_goes_on_meanwhile"],
    "unit/cube/test_s3.py": ["test_every_flipped_bit_in_a_bucket_is_seen"],
    "unit/inference/test_class_map.py": [
        "test_lost_workers_change_nothing[dask]",
        "test_wherever_it_is_mapped_the_bytes_are_the_same[dask]",
    ],
    "unit/inference/test_compute.py": ["test_lost_workers_change_nothing[processes]"],
    "unit/learning/test_sweep_study.py": ["test_an_outage_ends_the_search_and_leaves_trials_to_go_on_with"],
    "unit/privacy/test_canaries_of_kinds.py": ["test_no_planted_value_is_left_by_tracks_of_a_run[enhanced]"],
    "unit/products/test_dicom_sr.py": ["test_the_same_objects_give_the_same_bytes_and_keep_their_tracking_uid[cine]"],
}
LEFT_OUT = {f"tests/{file}::{test}" for file, tests in LONG.items() for test in tests}
