"""Build the pipeline's images with docker from a source tree."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence

from nomnom_control.environments import Progress
from nomnom_control.environments.cluster.configuration import IMAGES, ClusterConfiguration
from nomnom_control.environments.cluster.installation import lines_as_step
from nomnom_control.errors import ControlError
from nomnom_control.programs import ProgramError, run_lines, run_text

BUILD = 900.0
"""Timeout of one image in seconds."""
_BASES = {
    "PYTHON_IMAGE": "NOMNOM_BASE_PYTHON",
    "NODE_IMAGE": "NOMNOM_BASE_NODE",
    "NGINX_IMAGE": "NOMNOM_BASE_NGINX",
}
_PAGE = "nomnom-dashboard-frontend"
_SERVICES = {
    "nomnom-ingestion-api": "api",
    "nomnom-ingestion-worker": "worker",
    "nomnom-dashboard-backend": "dashboard",
    "nomnom-housekeeper": "housekeeper",
}


async def build_images(configuration: ClusterConfiguration, names: Sequence[str] = IMAGES) -> AsyncIterator[Progress]:
    """Build images one after another, since they share layers. NOMNOM_BASE_PYTHON, _NODE and _NGINX set base images."""
    if unknown := [each for each in names if each not in IMAGES]:
        raise ControlError(f"unknown image {unknown[0]}; available: {', '.join(IMAGES)}")
    folder = configuration.source_folder
    revision = await _revision(configuration)
    for name in names:
        arguments = {"VERSION": configuration.image_tag, "REVISION": revision}
        if name in _SERVICES:
            arguments["SERVICE"] = _SERVICES[name]
        arguments |= {each: value for each, name in _BASES.items() if (value := os.environ.get(name))}
        file = "images/page.Dockerfile" if name == _PAGE else "images/service.Dockerfile"
        command = [configuration.docker, "build", "--file", file, "--tag", configuration.image(name)]
        for key, value in arguments.items():
            command += ["--build-arg", f"{key}={value}"]
        async for each in lines_as_step(f"image {name}", run_lines([*command, "."], limit=BUILD, folder=folder)):
            yield each


async def missing_images(configuration: ClusterConfiguration) -> list[str]:
    """The images that docker does not have. Raises ProgramError if docker is unavailable."""
    listed = await run_text([configuration.docker, "image", "ls", "--format", "{{.Repository}}:{{.Tag}}"])
    present = set(listed.split())
    return [each for each in IMAGES if configuration.image(each) not in present]


async def image_sizes(configuration: ClusterConfiguration) -> dict[str, str]:
    """The size of each built image, as docker prints it."""
    form = "{{.Repository}}:{{.Tag}}\t{{.Size}}"
    listed = await run_text([configuration.docker, "image", "ls", "--format", form])
    sizes = dict(line.split("\t", 1) for line in listed.splitlines() if "\t" in line)
    return {each: sizes[name] for each in IMAGES if (name := configuration.image(each)) in sizes}


async def _revision(configuration: ClusterConfiguration) -> str:
    try:
        return (await run_text(["git", "-C", str(configuration.source_folder), "rev-parse", "HEAD"])).strip()
    except ProgramError:
        return ""  # the sources may come without a git repository
