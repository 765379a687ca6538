#!/usr/bin/env python3
import urllib.request

urllib.request.urlopen("http://127.0.0.1:8888/api")
