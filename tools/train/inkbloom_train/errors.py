class TrainError(Exception):
    """A failure the user can act on; the message is one sentence that says what to do."""
