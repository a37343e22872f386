"""Suggestions for labels: what a sensor or the pictures say about contacts, and the paper's rule for the cost."""

from data_collection.labels.contact import ContactWatch, obstacle_motion, paper_cost, wrench_contacts
from data_collection.labels.suggestion import suggested_cost

__all__ = ["ContactWatch", "obstacle_motion", "paper_cost", "suggested_cost", "wrench_contacts"]
