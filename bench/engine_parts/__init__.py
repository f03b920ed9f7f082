"""What bench/engine.py measures, a module each, over projects that are made here.

projects    DVC projects of one shape, and the same shape written by hand and for Cosmos
processor   parses DAG files as Airflow's DAG processor does, each in a fork of its own
parse       how long that takes
server      an Airflow, with the settings of deploy/airflow.env
nights      whole runs in it
stages      one stage, outside Airflow
publication the first and the last task of a night of 2,000 stages
"""
