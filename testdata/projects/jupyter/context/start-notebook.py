#!/usr/bin/env python
import os
import sys

os.execvp("jupyter", ["jupyter", "server", *sys.argv[1:]])
