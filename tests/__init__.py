"""The checks of the whole project: folders mirror the packages, `journeys/` crosses them, names are rules."""
