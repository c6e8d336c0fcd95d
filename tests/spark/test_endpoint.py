import socket
import subprocess
import sys
import textwrap

import pytest

from tests.helpers.searches import wait_until
from tuner.spark.sessions import DriverSession


@pytest.mark.long
def test_the_endpoint_opens_when_it_is_asked_for_and_not_before():
    code = """
    import socket
    from tuner.base.errors import SessionError
    from tuner.spark.endpoint import open_endpoint
    from tuner.spark.sessions import driver_session
    import sys
    free, taken = map(int, sys.argv[1:])
    def listens(port):
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0
    with driver_session("endpoint", 1, port=free) as session:
        print(listens(free))
        try:
            open_endpoint(session.spark, taken, session.token)
        except SessionError as error:
            print(error)
        print(session.endpoint.port == free, listens(free), session.token in repr(session))
    """
    with socket.socket() as taken, socket.socket() as free:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        free.bind(("127.0.0.1", 0))
        ports = [str(each.getsockname()[1]) for each in (free, taken)]
        free.close()
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(code), *ports], capture_output=True, text=True
        )
    before, refused, after = done.stdout.splitlines()
    assert before == "False"
    assert f"Port {ports[1]} of this machine is in use" in refused
    assert "--connect-port" in refused
    assert after == "True True False"


CLIENT = """
import sys
from tuner.spark.endpoint import Endpoint, connect_from_worker
session = connect_from_worker(Endpoint(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
session.sql("select sum(hash(id)) from range(100000000000000)").collect()
"""


@pytest.mark.long
def test_what_a_killed_client_began_ends(driver: DriverSession):
    endpoint, tracker = driver.endpoint, driver.spark.sparkContext.statusTracker()
    arguments = [endpoint.host, str(endpoint.port), endpoint.token]
    client = subprocess.Popen([sys.executable, "-c", CLIENT, *arguments])
    wait_until(tracker.getActiveJobsIds)
    client.kill()
    client.wait()
    wait_until(lambda: not tracker.getActiveJobsIds(), 240)
