"""Wording of all results: every sentence, caption and heading of a report is generated here, from data."""
