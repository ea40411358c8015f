"""What a sequence may say next, beyond what its model finds likely; shared by all runners."""
