"""Of `plugins/dvc_airflow` and `plugins/dvc_engine` both: most of what they promise takes the two."""
