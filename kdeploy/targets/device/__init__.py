"""What runs on a device: it keeps files, starts one job at a time, and tells how that goes.

These files alone are sent over each connection (`kdeploy.targets.program`) and run by the device's own Python, before
there is a kdeploy: so they need nothing but the standard library, and work from Python 3.6 on, for a Python that is
too old for kdeploy is told so. Everything lies in one folder there: `files/`, by SHA-256; `venv/`, the environment;
`job-*/`, a job at work.
"""
