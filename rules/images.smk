# The container images that the config and its tasks name.

from milepost.nemo.installation import task_images


localrules:
    prepare_images,


# The note on the images, where any are named. evaluate_checkpoint waits for it; another image asks nothing again.
TASK_IMAGES = task_images(CAMPAIGN.nemo.values())
IMAGES = ["results/images.json"] if TASK_IMAGES or {"vllm", "nemo"} & set(config.get("containers", {})) else []


rule prepare_images:
    """Pull or build the container images that the config and its tasks name and that are missing. Takes a host with a way out."""
    output:
        "results/images.json",
    log:
        "logs/prepare_images.log",
    params:
        containers=config.get("containers", {}),
        of_tasks=TASK_IMAGES,
    shell:
        """
        python "$MILEPOST_SCRIPTS/prepare_images.py" --out {output:q} 2> >(tee {log:q} >&2)
        """
