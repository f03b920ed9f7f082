"""What Airflow finds of the engine where its folder of plugins is this one.

Of two plugins of one name Airflow's tasks drop the second, and all that come after it: an installed engine is one.
"""

from importlib.metadata import entry_points

if not entry_points(group="airflow.plugins", name="dvc_airflow"):
    from dvc_airflow.plugin import DvcAirflow as DvcAirflow
