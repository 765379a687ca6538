"""The web app of many a Docker tutorial: one page, served by Flask."""

import os

from flask import Flask

app = Flask(__name__)


@app.route("/")
def hello():
    return "Hello from a container!\n"


if __name__ == "__main__":
    app.run(host=os.environ.get("HOST", "0.0.0.0"), port=int(os.environ.get("PORT", "8000")))
