"""Parts of networks and what is done with any network; knows no system."""
