"""Runs cells in kernels of a Jupyter server, all kernels at once, as a page does: HTTP and web sockets, with the token.

cells.py URL TOKEN '[[cell, ...], ...]' prints, for each list of cells, the list of what each cell showed.
"""

import asyncio
import json
import sys
import uuid

from tornado.httpclient import AsyncHTTPClient, HTTPRequest
from tornado.websocket import websocket_connect

TIMEOUT_S = 60


async def run(url, headers, cells):
    start = json.dumps({"name": "arbor-nb"})
    answer = await AsyncHTTPClient().fetch(f"{url}api/kernels", method="POST", headers=headers, body=start)
    kernel = json.loads(answer.body)["id"]
    channels = f"{url.replace('http', 'ws', 1)}api/kernels/{kernel}/channels"
    socket = await websocket_connect(HTTPRequest(channels, headers=headers))
    return [await asyncio.wait_for(execute(socket, code), TIMEOUT_S) for code in cells]


async def execute(socket, code):
    header = {"msg_id": uuid.uuid4().hex, "msg_type": "execute_request", "session": "cells", "username": "", "version": "5.4"}
    content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": False}
    message = {"channel": "shell", "header": header, "parent_header": {}, "metadata": {}, "content": content, "buffers": []}
    await socket.write_message(json.dumps(message))
    shown = ""
    while True:
        reply = json.loads(await socket.read_message())
        if reply["parent_header"].get("msg_id") != header["msg_id"]:
            continue
        kind, content = reply["msg_type"], reply["content"]
        if kind == "stream":
            shown += content["text"]
        elif kind in ("execute_result", "display_data"):
            shown += content["data"]["text/plain"]
        elif kind == "error":
            shown += f"{content['ename']}: {content['evalue']}"
        elif kind == "status" and content["execution_state"] == "idle":
            return shown


async def main(url, token, programs):
    headers = {"Authorization": f"token {token}"}
    shown = await asyncio.gather(*(run(url, headers, cells) for cells in programs))
    print(json.dumps(shown))


asyncio.run(main(sys.argv[1], sys.argv[2], json.loads(sys.argv[3])))
