"""What is said in the log, and how."""

import logging


class WithoutTrace(logging.Filter):
    """Takes the stack trace from what a stranger can bring about as often as they like; the line says all there is."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let everything pass, without its trace."""
        record.exc_info = None
        return True
