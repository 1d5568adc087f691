"""The words of all results: every sentence, caption and heading that a person reads is made here, from data."""
