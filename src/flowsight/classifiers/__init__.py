"""What all classifiers of clips share: functions that a system's files call."""
