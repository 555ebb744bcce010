"""The one exception that a user of the study should ever see."""


class InputError(ValueError):
    """Something the user gave (a folder, a language, a parameter, a full disk) stops the work.

    The message is one sentence that names the thing and says what to do about it. In a notebook only that
    sentence is shown: IPython calls ``_render_traceback_`` instead of printing forty lines of library frames.
    """

    def _render_traceback_(self) -> list[str]:
        return [f"InputError: {self}"]
