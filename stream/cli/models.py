"""`depthstream models`."""

import json

import click

from stream.cli.options import SETTINGS, as_json, debug


@click.command(context_settings=SETTINGS)
@as_json
@debug
def models(as_json: bool) -> None:
    """List the models: size, licence, output, whether the weights are here, what they are good for."""
    from stream.models import catalog
    from stream.models.weights.locate import search

    here = {spec.name: search(spec) for spec in catalog.MODELS}
    if as_json:
        rows = [
            {**spec.describe(), "present": found is not None, "path": str(found.path) if found else None}
            for spec in catalog.MODELS
            for found in [here[spec.name]]
        ]
        print(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    widest = max(len(spec.name) for spec in catalog.MODELS)
    for spec in catalog.MODELS:
        height, width = spec.input.size_hw
        unit = "metres" if spec.max_depth_m else "disparity"
        also = f"  also {', '.join(spec.aliases)}" if spec.aliases else ""
        place = "here" if here[spec.name] else "not here"
        facts = f"{spec.parameters_m:>7.1f} M  {spec.licence:<12}  {unit:<9}  {width}×{height}  {place}"
        print(f"{spec.name:<{widest}}  {facts}\n    {spec.summary}{also}")
