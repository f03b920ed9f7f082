"""A DVC project as plain data; below everything else here: it asks Git's refs for nothing.

project       stages, and which rests on which
meta          what a stage asks for in `meta.airflow`
pod           and of its pod in Kubernetes
requirements  what an environment of its own rests on
reading       any DVC project read into that, as DVC reads it
refusals      what DVC refuses of one, in a sentence
kept          what is costly to find again of one, in `.dvc/tmp`
naming        what tasks are called in Airflow
check         what DVC takes and a night cannot run
selection     which stages run
lock          lock entries: read, merge, write
wire          and how they travel by JSON
"""
