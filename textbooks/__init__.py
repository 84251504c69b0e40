"""The engine of the case study: topics, teachers, exercises, verification, filtering, evaluation."""
