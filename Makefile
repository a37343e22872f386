# make demo | test | bench | experiments | lint | clean.  `make help` explains.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
PY := $(VENV)/bin/python
# ROS=wheels (default) takes ROS 2 Kilted from pip wheels; ROS=system a sourced installation.
ROS ?= wheels
# Extra arguments for the pip call that installs torch, for instance an index with CPU or CUDA builds.
TORCH_ARGS ?=
# SCRATCH=1 pretrains in the demo from random weights instead of the shipped checkpoint.
SCRATCH ?= 0
# Extra arguments for pytest: make test PYTEST_ARGS='tests/core -k fosp'
PYTEST_ARGS ?=
# Extra arguments for the fault suite, for instance '--soak 600' for the run in which nothing may trip.
FAULT_ARGS ?=
# Which experiment, and its arguments: make experiments EXP_ARGS=--help
EXP ?= offline_safe_rl
EXP_ARGS ?=

.PHONY: help setup demo test takeover guide bench faults experiments lint lock clean

help:  ## what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup:  ## the environment in .venv and the ROS workspace; seconds when nothing changed
	@ROS=$(ROS) TORCH_ARGS="$(TORCH_ARGS)" requirements/setup.sh

demo: setup  ## the main job on the simulated arm, ending with runs/demo/report.html (SCRATCH=1: no shipped checkpoint)
	@$(PY) -m robot_bringup.demo $(if $(filter 1,$(SCRATCH)),--scratch)

test: setup  ## every test but those of `make takeover`
	@requirements/browser.sh
	@$(PY) -m robot_bringup.run $(VENV)/bin/pytest $(PYTEST_ARGS)

takeover: setup  ## a person takes the arm from a policy, processes are lost in an episode; minutes of a quiet machine
	@$(PY) -m robot_bringup.run $(VENV)/bin/pytest -m takeover $(PYTEST_ARGS)

guide: setup  ## robot_bringup/GUIDE.md, command by command, on the simulated arm
	@$(PY) -m robot_bringup.guide

bench: setup  ## speed figures into results/bench.json
	@$(PY) -m robot_bringup.run $(PY) -m robot_bringup.bench

faults: setup  ## faults injected into the running graph, into results/faults.csv (FAULT_ARGS='--runs 2 --only NAME')
	@$(PY) -m robot_bringup.run $(PY) -m tests.faults $(FAULT_ARGS)

experiments: setup  ## a comparison of methods, resumable (EXP=offline_safe_rl EXP_ARGS='--datasets SafeReach --seeds 0')
	@$(PY) -m sim.experiments $(EXP) $(EXP_ARGS)

lint: setup  ## ruff, and mypy on the core and the gate
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/mypy safe_policy_core ros2_ws/src/safe_policy_ros/safe_policy_ros/safety_gate_node.py

lock:  ## renew requirements/requirements.lock from requirements.in
	@requirements/lock.sh

clean:  ## removes everything that was built, and keeps what was recorded
	@rm -rf $(VENV) .tools ros2_ws/build ros2_ws/install ros2_ws/log build install log *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
