"""What the DAG files share: configuration, operators, forms, notifications."""
