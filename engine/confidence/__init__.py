"""From signals to a confidence that can be signed: agreement, calibration, certificate, gold."""
