"""arbor-ai's client, unmodified, without its server's packages: `import arbor` imports that server, which wants torch, trl and vllm, and the client asks no more of
it than two names. For people there is src/python, which starts our server in its place; these tests bring their own server."""

import sys
import types

server = types.ModuleType("arbor.cli")
server.start_server = server.stop_server = lambda *args, **kwargs: None
sys.modules["arbor.cli"] = server
