"""Programs that read lists of the API without a pause, in a process of their own: nobody waits for their interpreter.

    python -m benchmarks.growth.readers PORT COUNT < TOKEN

Prints a line when each of them has had an answer, and goes on until it is ended.
"""

import sys
import threading

import httpx

ADDRESSES = ("/api/v1/coins/", "/api/v1/runs/", "/api/v1/releases/", "/api/v1/diagnoses/")


def read_without_pause(port: int, token: str, address: str, first_answer: threading.Semaphore) -> None:
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
        client.get(address, headers=headers)
        first_answer.release()
        while True:
            client.get(address, headers=headers)


def main() -> None:
    port, count, token = int(sys.argv[1]), int(sys.argv[2]), sys.stdin.readline().strip()
    answered = threading.Semaphore(0)
    for number in range(count):
        address = ADDRESSES[number % len(ADDRESSES)]
        threading.Thread(target=read_without_pause, args=(port, token, address, answered)).start()
    for _ in range(count):
        answered.acquire()
    print("reading", flush=True)


if __name__ == "__main__":
    main()
