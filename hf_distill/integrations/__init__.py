"""Trainers of other libraries with a teacher; each file imports its library, so nothing is imported here."""
