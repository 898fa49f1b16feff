# The container images that the config names.


localrules:
    prepare_images,


# The note on the images, where the config names any. evaluate_checkpoint waits for it; another image asks nothing again.
IMAGES = ["results/images.json"] if {"vllm", "nemo"} & set(config.get("containers", {})) else []


rule prepare_images:
    """Pull or build the container images that the config names and that are missing. Takes a host with a way out."""
    input:
        script=ancient(script("prepare_images.py")),
    output:
        "results/images.json",
    log:
        "logs/prepare_images.log",
    params:
        containers=config.get("containers", {}),
    shell:
        """
        python {input.script:q} --out {output:q} 2> >(tee {log:q} >&2)
        """
