"""What the deployment tests share."""
import os
import shutil
import subprocess

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCE = os.path.dirname(os.path.dirname(HERE))
DEPLOY = os.path.join(SOURCE, "deploy")


def need(tool):
    """The path of a tool that deploy/packages.sh installs where it can; without it the test is
    skipped, and says so."""
    path = shutil.which(tool)
    if path is None:
        pytest.skip("no %s here" % tool)
    return path


def said(*command, **options):
    """What a command that must succeed printed."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                          **options)
    assert done.returncode == 0, "%s: %d\n%s" % (" ".join(command), done.returncode, done.stdout)
    return done.stdout
