#!/usr/bin/env python3
"""Turn file trees into container images with tar, JSON and nothing else.

    image.py layer   TREE OUT.tar [BASE]
    image.py archive OUT.tar REF CONFIG.json LAYER.tar...

`layer` packs a file tree, or the upper directory of an overlay mount, into one layer. Deletions recorded by overlayfs become the
whiteout files of the OCI layer format; BASE is the tree below, by which a directory that hides one is told from a new one.
Modification times are clamped and owners are numbers only, so the same packages give
the same digest on every machine.

`archive` writes a tar that is two formats at once: an OCI image layout (oci-layout, index.json, blobs/) and the archive of
`docker save` (manifest.json, which points at the same blobs). Layers stay uncompressed: both formats allow it, and loading an
image on three nodes of one machine is then bound by the disk alone.
"""

import hashlib
import io
import json
import os
import stat
import subprocess
import sys
import tarfile
import time

EPOCH = int(os.environ.get("SOURCE_DATE_EPOCH", "1700000000"))
CREATED = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(EPOCH))

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
CONFIG_TYPE = "application/vnd.oci.image.config.v1+json"
LAYER_TYPE = "application/vnd.oci.image.layer.v1.tar"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"


def normalised(entry):
    """Strip what differs from one build to the next from a tar entry."""
    entry.mtime = min(int(entry.mtime), EPOCH)
    entry.uname = entry.gname = ""
    entry.pax_headers = {}
    return entry


def whiteout(directory, name):
    return normalised(tarfile.TarInfo(os.path.join(directory, ".wh." + name)))


def is_opaque(path, below):
    """True for a directory that hides the one below it. Overlayfs marks new ones too, which hide nothing."""
    try:
        return os.getxattr(path, "trusted.overlay.opaque") == b"y" and os.path.isdir(below)
    except OSError:
        return False


def write_layer(tree, out, base=None):
    with tarfile.open(out, "w", format=tarfile.GNU_FORMAT) as layer:
        for path, directories, files in os.walk(tree):
            directories.sort()
            inside = os.path.relpath(path, tree)
            inside = "" if inside == "." else inside
            if inside:
                layer.addfile(normalised(layer.gettarinfo(path, arcname=inside)))
                if base and is_opaque(path, os.path.join(base, inside)):
                    layer.addfile(whiteout(inside, ".wh..opq"))
            # os.walk counts a link to a directory as a directory, but does not enter it.
            links = [name for name in directories if os.path.islink(os.path.join(path, name))]
            for name in sorted(files + links):
                add_leaf(layer, os.path.join(path, name), inside, name)


def add_leaf(layer, path, directory, name):
    status = os.lstat(path)
    if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
        # Overlayfs marks a deleted file by a device node 0/0.
        layer.addfile(whiteout(directory, name))
        return
    if stat.S_ISSOCK(status.st_mode):
        return
    entry = normalised(layer.gettarinfo(path, arcname=os.path.join(directory, name)))
    if entry.isreg():
        with open(path, "rb") as content:
            layer.addfile(entry, content)
    else:
        layer.addfile(entry)


def descriptor(media_type, digest, size):
    return {"mediaType": media_type, "digest": "sha256:" + digest, "size": size}


def encoded(value):
    return json.dumps(value, sort_keys=True).encode()


def file_digest(path):
    digest = hashlib.sha256()
    with open(path, "rb") as content:
        while chunk := content.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def architecture():
    return subprocess.check_output(["dpkg", "--print-architecture"], text=True).strip()


def full_name(reference):
    """The reference with the parts that Docker leaves out: containerd knows an image by its full name only."""
    host = reference.split("/")[0]
    if "/" in reference and ("." in host or ":" in host):
        return reference
    return "docker.io/" + (reference if "/" in reference else "library/" + reference)


def write_archive(out, reference, config_path, *layer_paths):
    digests = [file_digest(path) for path in layer_paths]
    with open(config_path, encoding="utf-8") as source:
        runtime_config = json.load(source)
    platform = {"architecture": architecture(), "os": "linux"}
    config = encoded({
        **platform,
        "created": CREATED,
        "config": runtime_config,
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + digest for digest in digests]},
        "history": [{"created": CREATED, "created_by": os.path.basename(path)} for path in layer_paths],
    })
    config_digest = hashlib.sha256(config).hexdigest()
    manifest = encoded({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE,
        "config": descriptor(CONFIG_TYPE, config_digest, len(config)),
        "layers": [descriptor(LAYER_TYPE, digest, os.path.getsize(path)) for digest, path in zip(digests, layer_paths)],
    })
    manifest_digest = hashlib.sha256(manifest).hexdigest()
    index = encoded({
        "schemaVersion": 2,
        "mediaType": INDEX_TYPE,
        "manifests": [{
            **descriptor(MANIFEST_TYPE, manifest_digest, len(manifest)),
            "platform": platform,
            "annotations": {
                "io.containerd.image.name": full_name(reference),
                "org.opencontainers.image.ref.name": reference.rsplit(":", 1)[1],
            },
        }],
    })
    docker_manifest = encoded([{
        "Config": "blobs/sha256/" + config_digest,
        "RepoTags": [reference],
        "Layers": ["blobs/sha256/" + digest for digest in digests],
    }])
    # Written beside the target and renamed, so that nobody loads half an image.
    partial = out + ".partial"
    with tarfile.open(partial, "w", format=tarfile.GNU_FORMAT) as archive:
        add_bytes(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        add_bytes(archive, "index.json", index)
        add_bytes(archive, "manifest.json", docker_manifest)
        add_bytes(archive, "blobs/sha256/" + config_digest, config)
        add_bytes(archive, "blobs/sha256/" + manifest_digest, manifest)
        for digest, path in sorted(zip(digests, layer_paths)):
            add_file(archive, "blobs/sha256/" + digest, path)
    os.rename(partial, out)


def blob_entry(name, size):
    entry = tarfile.TarInfo(name)
    entry.mtime, entry.mode, entry.size = EPOCH, 0o644, size
    return entry


def add_bytes(archive, name, data):
    archive.addfile(blob_entry(name, len(data)), io.BytesIO(data))


def add_file(archive, name, path):
    with open(path, "rb") as content:
        archive.addfile(blob_entry(name, os.path.getsize(path)), content)


def main(arguments):
    match arguments:
        case ["layer", tree, out, *base] if len(base) <= 1:
            write_layer(tree, out, *base)
        case ["archive", out, reference, config, first_layer, *more]:
            write_archive(out, reference, config, first_layer, *more)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
