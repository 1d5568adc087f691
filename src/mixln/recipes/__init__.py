"""Published tables and figures as comparisons to run, with complete settings at the paper's scale and at a small one."""

from mixln.recipes import hybridnorm, mix_ln
from mixln.recipes.records import Ordering, Place, Recipe, Run, Scale
from mixln.recipes.table4 import TABLE_4

RECIPES: dict[str, Recipe] = {
    "table1": mix_ln.TABLE1,
    "table2": mix_ln.TABLE2,
    "table3": mix_ln.TABLE3,
    "table4": TABLE_4,
    "table5": mix_ln.TABLE5,
    "table6": mix_ln.TABLE6,
    "table7": mix_ln.TABLE7,
    "table8": mix_ln.TABLE8,
    "figure2": mix_ln.FIGURE2,
    "figure3": mix_ln.FIGURE3,
    "figure4": mix_ln.FIGURE4,
    "figure5": mix_ln.FIGURE5,
    "figure6": mix_ln.FIGURE6,
    "hybridnorm": hybridnorm.MAIN,
    "hybridnorm-tasks": hybridnorm.TASKS,
    "hybridnorm-experts": hybridnorm.EXPERTS,
    "hybridnorm-init": hybridnorm.INIT,
    "hybridnorm-ablation": hybridnorm.ABLATION,
}

__all__ = ["RECIPES", "Ordering", "Place", "Recipe", "Run", "Scale"]
