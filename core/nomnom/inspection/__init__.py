"""What a pipeline holds, read without changing it: for control and for the dashboard alike."""
