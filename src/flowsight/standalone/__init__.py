"""Airflow and MLflow on one machine, for one person: started, watched and stopped together."""
