"""Whole studies: from a study file to the commands of every step, through Snakemake, to a report or a list of failures."""

from cellvim.study.plan import StudyPlan, plan_study, read_study
from cellvim.study.template import write_study_file

__all__ = ["StudyPlan", "plan_study", "read_study", "write_study_file"]
