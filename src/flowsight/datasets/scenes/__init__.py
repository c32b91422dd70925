"""Videos of static cameras on disk, as changedetection.net lays them out."""
