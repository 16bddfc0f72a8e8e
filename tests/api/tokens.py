"""Gives each request the token of another user, so that no allowance of a user ends the test."""

import itertools
import os
import pathlib

import schemathesis

TOKENS = itertools.cycle(pathlib.Path(os.environ["TOKENS"]).read_text().split())


@schemathesis.auth(refresh_interval=None)
class Users:
    def get(self, case, context):
        return next(TOKENS)

    def set(self, case, data, context):
        case.headers = case.headers or {}
        case.headers["Authorization"] = f"Bearer {data}"
