"""Background subtraction with recurrent networks on static-camera videos."""
