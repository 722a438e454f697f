"""What surrounds a configuration of nginx that runs for a test or a benchmark.

The law: it stays in the foreground, one worker, and writes nowhere but into its folder.
"""

from __future__ import annotations

from pathlib import Path

_FRAME = """\
worker_processes 1;
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  {site}
}}
"""


def configuration(folder: Path, site: str) -> str:
    """A whole configuration; `site` is what stands in its `http` block."""
    return _FRAME.format(folder=folder, site=site)
