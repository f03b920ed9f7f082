"""Where Airflow's folder of plugins is this one, and nothing installed the engine: what Airflow looks for in it."""

from dvc_airflow.night.plugin import DvcAirflow

__all__ = ["DvcAirflow"]
