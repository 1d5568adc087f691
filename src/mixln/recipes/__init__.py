"""What papers published, as comparisons to run: complete settings, at their scale and at one that a small machine holds."""

from mixln.recipes.records import Recipe, Run, Scale
from mixln.recipes.table4 import TABLE_4

RECIPES: dict[str, Recipe] = {"table4": TABLE_4}

__all__ = ["RECIPES", "Recipe", "Run", "Scale"]
