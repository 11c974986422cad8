"""Shows the coloured points of a video or of photos in Rerun, turning a depth map into a cloud itself.

    pip install 'depthstream[rerun]'
    python examples/points_in_rerun.py clip.mp4 points.rrd             then: rerun points.rrd
    python examples/points_in_rerun.py photos/ points.rrd --model dav2-metric-indoor-small

`depthstream run clip.mp4 --rerun` shows image, depth and camera live, without a program.
"""

import argparse

import rerun as rr

import stream


def main() -> None:
    """Record one cloud for each frame on the timeline `time`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("recording", help="FILE.rrd")
    parser.add_argument("--model", default="starter")
    parser.add_argument("--fov", type=float, help="horizontal field of view in degrees")
    parser.add_argument("--frames", type=int, help="stop after this many")
    options = parser.parse_args()

    with rr.RecordingStream("points") as recording:
        recording.save(options.recording)
        recording.log("/", rr.ViewCoordinates.RDF, static=True)  # x right, y down, z forward
        for frame, depth in stream.iter_depth(options.source, model=options.model, max_frames=options.frames):
            cloud = stream.point_cloud(frame, depth, fov=options.fov)
            recording.set_time("time", duration=frame.time_s)
            recording.log("points", rr.Points3D(cloud.xyz, colors=cloud.rgb))
            print(f"{frame.time_s:8.3f} s  {len(cloud)} points, focal length: {cloud.focal_source.value}", flush=True)


if __name__ == "__main__":
    main()
