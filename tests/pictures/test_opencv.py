"""OpenCV's chatter: held back, and given back as it was."""

import cv2

from prefrestore.pictures.opencv import quiet_opencv


def test_those_who_leave_early_do_not_let_the_others_chatter() -> None:
    logging = cv2.utils.logging
    before = logging.getLogLevel()
    first, second = quiet_opencv(), quiet_opencv()
    try:
        logging.setLogLevel(logging.LOG_LEVEL_WARNING)
        # As two photos in two threads: the one that began first is through first.
        first.__enter__()
        second.__enter__()
        first.__exit__(None, None, None)
        assert logging.getLogLevel() == logging.LOG_LEVEL_ERROR
        second.__exit__(None, None, None)
        assert logging.getLogLevel() == logging.LOG_LEVEL_WARNING
    finally:
        logging.setLogLevel(before)
