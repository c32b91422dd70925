"""From predictions to numbers, tables and figures: what all systems share."""
