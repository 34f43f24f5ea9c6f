"""What the build begins with: joins the plugin and the contract."""

# The host's side of both is loaded here, at build time, for the plugin to find.
from wit_world.imports import control, log  # noqa: F401

import plugin
import scutwork

Handler = scutwork.handler(plugin.handle)
