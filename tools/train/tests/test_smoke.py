"""The whole way from pictures to an exported model."""

def test_run(smoke):
    assert smoke.export.exists()
