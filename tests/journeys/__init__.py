"""Journeys: a live server and real devices, each a process of its own, seen through the doors that everybody has."""
