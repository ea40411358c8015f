"""Worker processes and those who keep them: started here or elsewhere, watched, and come back."""
